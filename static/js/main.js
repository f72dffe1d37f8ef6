// Entry of every page: connects the live line and wakes the parts that the page has.
import { LiveLine } from './live.js';
import { watchCopy } from './copy.js';
import { watchDialog } from './dialog.js';
import { watchFaults } from './faults.js';
import { watchLook } from './look.js';
import { watchMenus } from './menus.js';
import { watchSelection } from './selection.js';
import { showStatus } from './status.js';
import { subscribePage } from './pages.js';
import { watchToasts } from './toasts.js';
import { watchUpload } from './upload.js';

watchCopy();
watchFaults();
watchDialog();
watchLook();
watchMenus();
watchToasts();
watchUpload();

const path = document.body.dataset.live;
if (path) {
  const live = new LiveLine(new URL(path, location.href.replace(/^http/, 'ws')).href);
  watchSelection();
  subscribePage(live);
  showStatus(live);
  live.connect();
}
