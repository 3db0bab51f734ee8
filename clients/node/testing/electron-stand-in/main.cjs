// What the app uses of Electron, where there is none: a main process and a window that is a process of its own. All between
// them goes through the structured clone algorithm, as Electron's IPC does, and a rejection arrives as its message only.
const { fork } = require('node:child_process');
const { EventEmitter } = require('node:events');
const { dirname, join } = require('node:path');

class App extends EventEmitter {
  #paths = new Map();
  whenReady() { return new Promise((resolve) => setImmediate(resolve)); }
  setPath(name, path) { this.#paths.set(name, path); }
  getPath(name) { return this.#paths.get(name); }
  exit(code) { process.exit(code); }
  quit() {
    let prevented = false;
    for (const window of BrowserWindow.all) window.destroy();
    this.emit('will-quit', { preventDefault: () => (prevented = true) });
    if (!prevented) process.exit(0);
  }
}

class IpcMain {
  handlers = new Map();
  handle(channel, handler) {
    if (this.handlers.has(channel)) throw new Error(`Attempted to register a second handler for '${channel}'`);
    this.handlers.set(channel, handler);
  }
  removeHandler(channel) { this.handlers.delete(channel); }
}

class BrowserWindow {
  static all = [];
  #child;
  #preload;
  constructor({ webPreferences }) { this.#preload = webPreferences.preload; }
  async loadFile(page) {
    const renderer = join(__dirname, 'renderer.cjs');
    const child = fork(renderer, [this.#preload, join(dirname(page), 'page.js')], { serialization: 'advanced' });
    this.#child = child;
    BrowserWindow.all.push(this);
    // What is told to a window that closes meanwhile is lost, as in Electron.
    const tell = (message) => child.connected && child.send(message, () => {});
    child.on('error', () => {});
    const sender = {
      id: child.pid,
      isDestroyed: () => !child.connected,
      send: (channel, ...args) => tell({ channel, args }),
    };
    child.on('message', async ({ id, channel, args }) => {
      try {
        const handler = ipcMain.handlers.get(channel);
        if (!handler) throw new Error(`No handler registered for '${channel}'`);
        tell({ id, result: await handler({ sender }, ...args) });
      } catch (error) {
        tell({ id, error: `Error invoking remote method '${channel}': ${error}` });
      }
    });
  }
  destroy() { this.#child?.kill('SIGKILL'); }
}

const ipcMain = new IpcMain();
module.exports = { app: new App(), BrowserWindow, ipcMain };
