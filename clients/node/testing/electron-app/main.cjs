// An Electron app as a user would write it: its main process. APP_DATA is its folder, APP_REPORT what its window tells us.
const { writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { app, BrowserWindow, ipcMain } = require('electron');
const { ElectronTTSIntegration } = require('chorus-tts/electron');

app.setPath('userData', process.env.APP_DATA);
const tts = new ElectronTTSIntegration(
  { app, ipcMain },
  { args: ['--engine', 'null', '--output-root', app.getPath('userData')], env: process.env, readyTimeoutMs: 120_000 },
);
const told = (report) => writeFileSync(process.env.APP_REPORT, JSON.stringify(report));

ipcMain.handle('report', async (_event, report) => {
  const { workers, managers } = await tts.manager.refreshStatus();
  const pids = [...workers, ...managers].flatMap((part) => [part.pid, part.enginePid]).filter(Boolean);
  told({ ...report, pids, electron: process.versions.electron ?? null });
  app.quit();
});

app.whenReady().then(async () => {
  await tts.initializeWithElectron();
  const window = new BrowserWindow({ show: false, webPreferences: { preload: join(__dirname, 'preload.cjs') } });
  await window.loadFile(join(__dirname, 'page.html'));
}).catch((error) => {
  told({ failed: String(error) });
  app.exit(1);
});
