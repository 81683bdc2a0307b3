// What is used of ssh2, as a file of its own (rolldown.config.ts): it is loaded when the first SSH connection is made, and never by a start.
import ssh2 from 'ssh2';

export const { Client, utils } = ssh2;
