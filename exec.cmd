@rem npm scripts say "exec node ...", so that no shell stands between npm and us to swallow signals; cmd.exe has no exec.
@%*
