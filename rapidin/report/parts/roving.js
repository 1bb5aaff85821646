// Arrow keys that move among many small items; the tab key stops at one of them only.

/**
 * Find the item on the line above or below that is nearest to another item.
 *
 * @param {HTMLElement[]} items
 * @param {HTMLElement} from
 * @param {number} direction -1 for the line above, 1 for the line below
 * @returns {HTMLElement|null} null if there is no such line
 */
function onOtherLine(items, from, direction) {
  const start = from.getBoundingClientRect();
  const middle = start.left + start.width / 2;
  let best = null;
  let bestLine = 0;
  let bestDistance = 0;
  for (const item of items) {
    const place = item.getBoundingClientRect();
    const line = (place.top - start.top) * direction;
    if (line < start.height / 2) continue;
    const distance = Math.abs(place.left + place.width / 2 - middle);
    if (best === null || line < bestLine - 2 || (line < bestLine + 2 && distance < bestDistance)) {
      [best, bestLine, bestDistance] = [item, line, distance];
    }
  }
  return best;
}

/**
 * Make arrow keys, Home and End move among the items of a container.
 *
 * @param {HTMLElement} container
 * @param {string} selector selector of the items
 * @param {(item: HTMLElement, event: KeyboardEvent) => void} [onMove] is called with the item that was moved to
 * @returns {{ begin: () => void }} `begin` makes the tab key stop at the first item
 */
function rove(container, selector, onMove = () => {}) {
  const items = () => [...container.querySelectorAll(selector)];
  const stop = (item) => {
    container.querySelectorAll(`${selector}[tabindex="0"]`).forEach((other) => { other.tabIndex = -1; });
    item.tabIndex = 0;
  };
  container.addEventListener("focusin", (event) => {
    const item = event.target.closest(selector);
    if (item) stop(item);
  });
  container.addEventListener("keydown", (event) => {
    const item = event.target.closest(selector);
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = items();
    const at = all.indexOf(item);
    const forward = getComputedStyle(container).direction === "rtl" ? -1 : 1;
    const next = {
      ArrowRight: () => all[at + forward],
      ArrowLeft: () => all[at - forward],
      ArrowDown: () => onOtherLine(all, item, 1),
      ArrowUp: () => onOtherLine(all, item, -1),
      Home: () => all[0],
      End: () => all[all.length - 1],
    }[event.key]?.();
    if (!next) return;
    event.preventDefault();
    next.focus();
    onMove(next, event);
  });
  return { begin: () => { const [first] = items(); if (first) stop(first); } };
}
