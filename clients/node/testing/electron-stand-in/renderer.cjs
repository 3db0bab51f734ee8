// The window's process: the preload script with its half of Electron, then the page's script.
const { EventEmitter } = require('node:events');
const Module = require('node:module');

const [preload, page] = process.argv.slice(2);
const open = new Map();
const ipcRenderer = Object.assign(new EventEmitter(), {
  invoke: (channel, ...args) => new Promise((resolve, reject) => {
    const id = open.size;
    open.set(id, { resolve, reject });
    process.send({ id, channel, args });
  }),
});
process.on('message', ({ id, result, error, channel, args }) => {
  if (channel) ipcRenderer.emit(channel, {}, ...args);
  else if (error) open.get(id).reject(new Error(error));
  else open.get(id).resolve(result);
});

const electron = { ipcRenderer, contextBridge: { exposeInMainWorld: (name, api) => (globalThis[name] = api) } };
const load = Module._load;
Module._load = (request, ...rest) => (request === 'electron' ? electron : load(request, ...rest));
require(preload);
require(page);
