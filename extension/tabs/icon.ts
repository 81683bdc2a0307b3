// The icon of a tab tells how it goes, by shape and by colour: a straight line (direct), a line that goes around (steered), a barred circle
// (blocked), a broken line (the companion is away).
import browser from 'webextension-polyfill';
import type { TabCounts } from './tab-traffic.ts';

export type Look = 'off' | 'direct' | 'steered' | 'blocked' | 'down';

const COLOURS: Record<Look, string> = {
  off: '#8a8f98',
  direct: '#5f6772',
  steered: '#0b7a5c',
  blocked: '#c0362c',
  down: '#b26a00',
};
const SIZES = [16, 32];
const drawn = new Map<Look, Record<number, ImageData>>();

/** Shows the look on a tab, with a title in words. A tab that is gone by now is no fault. */
export async function showIcon(tabId: number, look: Look, title: string): Promise<void> {
  const action = browser.action ?? browser.browserAction;
  try {
    await Promise.all([
      action.setIcon({ tabId, imageData: pictureOf(look) as never }),
      action.setTitle({ tabId, title }),
    ]);
  } catch {
    // The tab was closed.
  }
}

/** How many requests of a tab were blocked; nothing where none was. */
export async function showBadge(tabId: number, blocked: number): Promise<void> {
  const action = browser.action ?? browser.browserAction;
  try {
    await action.setBadgeText({ tabId, text: blocked > 0 ? String(Math.min(blocked, 999)) : '' });
    if (blocked > 0) await action.setBadgeBackgroundColor({ tabId, color: COLOURS.blocked });
  } catch {
    // The tab was closed.
  }
}

/** How a tab goes, in words. */
export function titleOf(look: Look, host: string, route: string | null, counts: TabCounts): string {
  switch (look) {
    case 'off':
      return 'Detour is off';
    case 'direct':
      return host === '' ? 'Detour' : `${host} goes direct`;
    case 'steered':
      return `${host} is steered${route ? ` by ${route}` : ''}`;
    case 'down':
      return `${host} is steered, but the companion is away`;
    case 'blocked': {
      const by = counts.incidents.find(incident => incident.blockedBy)?.blockedBy;
      const where = !by ? 'your rules' : by.list ? `${by.rule} (${by.list}, line ${by.line})` : by.rule;
      return `${host} is blocked by ${where}`;
    }
  }
}

function pictureOf(look: Look): Record<number, ImageData> {
  let pictures = drawn.get(look);
  if (!pictures) {
    pictures = Object.fromEntries(SIZES.map(size => [size, draw(look, size)]));
    drawn.set(look, pictures);
  }
  return pictures;
}

function draw(look: Look, size: number): ImageData {
  const canvas = new OffscreenCanvas(size, size);
  const pen = canvas.getContext('2d', { willReadFrequently: true })!;
  pen.scale(size / 16, size / 16);
  pen.strokeStyle = COLOURS[look];
  pen.fillStyle = COLOURS[look];
  pen.lineWidth = 2.4;
  pen.lineCap = 'round';
  pen.lineJoin = 'round';
  pen.beginPath();
  switch (look) {
    case 'off':
    case 'direct':
      pen.moveTo(2, 8);
      pen.lineTo(12, 8);
      break;
    case 'steered':
      pen.moveTo(2, 12);
      pen.lineTo(4, 12);
      pen.bezierCurveTo(8, 12, 6, 4, 10, 4);
      pen.lineTo(12, 4);
      break;
    case 'blocked':
      pen.arc(8, 8, 5.6, 0, 2 * Math.PI);
      pen.moveTo(4.2, 11.8);
      pen.lineTo(11.8, 4.2);
      break;
    case 'down':
      pen.moveTo(2, 8);
      pen.lineTo(5, 8);
      pen.moveTo(7.2, 5);
      pen.lineTo(8.8, 11);
      pen.moveTo(11, 8);
      pen.lineTo(14, 8);
      break;
  }
  pen.stroke();
  const tip = look === 'steered' ? 4 : look === 'direct' || look === 'off' ? 8 : null;
  if (tip !== null) {
    pen.beginPath();
    pen.moveTo(11.5, tip - 3.2);
    pen.lineTo(15.5, tip);
    pen.lineTo(11.5, tip + 3.2);
    pen.closePath();
    pen.fill();
  }
  return pen.getImageData(0, 0, size, size);
}
