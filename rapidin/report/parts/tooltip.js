// One tooltip for the whole page, which shows the numbers of the element that is pointed at or focused.

/**
 * @typedef {object} Tooltip
 * @property {() => void} speakAgain show the numbers again after the selection has changed
 * @property {() => void} hide
 * @property {(element: HTMLElement, lines: () => [string, string][]) => void} speak give an element its lines of name
 *   and value
 */

/**
 * Make the tooltip.
 *
 * @returns {Tooltip}
 */
const makeTooltip = () => {
  const tooltip = byId("tooltip");
  const speakers = new WeakMap();
  let shown = null;

  function hide() {
    tooltip.hidden = true;
    if (shown) shown.removeAttribute("aria-describedby");
    shown = null;
  }

  function show(element) {
    if (element === shown) return;
    hide();
    tooltip.hidden = false;
    element.setAttribute("aria-describedby", "tooltip");
    shown = element;
    speakAgain();
  }

  function speakAgain() {
    if (!shown) return;
    tooltip.replaceChildren(...speakers.get(shown)().map(([name, value]) => make("div", "", {}, [
      make("span", "name", {}, [name]), isolated(value, "value"),
    ])));
    settle();
  }

  /** Put the tooltip above its element, or below it if there is no room. */
  function settle() {
    if (!shown) return;
    const place = shown.getClientRects()[0] ?? shown.getBoundingClientRect();
    const size = tooltip.getBoundingClientRect();
    const left = Math.max(8, Math.min(place.left + place.width / 2 - size.width / 2, innerWidth - size.width - 8));
    const above = place.top - size.height - 8;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${above < 8 ? place.bottom + 8 : above}px`;
  }

  const pointed = (event) => {
    const element = event.target instanceof Element ? event.target.closest("[data-speaks]") : null;
    if (element && speakers.has(element)) show(element);
    else hide();
  };
  document.addEventListener("pointerover", pointed);
  document.addEventListener("focusin", pointed);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", settle, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  return {
    speakAgain,
    hide,
    speak(element, lines) {
      element.dataset.speaks = "";
      speakers.set(element, lines);
    },
  };
};
