// `npm run dev`: a real browser with the extension loaded, paired to a live companion.
process.stderr.write('npm run dev is not furnished yet: use npm start and load the folder it prints\n');
process.exitCode = 1;
