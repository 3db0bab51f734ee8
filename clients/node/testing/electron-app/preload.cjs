// What the page may do: an API of its own in front of the channels.
const { contextBridge, ipcRenderer } = require('electron');

contextBridge.exposeInMainWorld('tts', {
  speak: (request, id) => ipcRenderer.invoke('tts-synthesize', request, id),
  stream: (request, id) => ipcRenderer.invoke('tts-stream', request, id),
  cancel: (id) => ipcRenderer.invoke('tts-cancel', id),
  status: () => ipcRenderer.invoke('tts-status'),
  models: () => ipcRenderer.invoke('tts-models'),
  metrics: () => ipcRenderer.invoke('tts-metrics'),
  onChunk: (listener) => ipcRenderer.on('tts-chunk', (_event, id, chunk) => listener(id, chunk)),
  report: (report) => ipcRenderer.invoke('report', report),
});
