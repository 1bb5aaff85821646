// The lists of proponents and opponents, and the tabs between them.

const SHOWN_AT_FIRST = 20;
const SIDES = ["proponents", "opponents"];

/**
 * How the cards of both lists are drawn.
 *
 * @typedef {object} Scale
 * @property {boolean} selected whether words are selected
 * @property {number} most influence that the strongest colour stands for
 * @property {number} widest influence that the longest bar stands for
 */

/**
 * Put elements into a container in this order; the element that has the focus keeps it.
 *
 * @param {HTMLElement} container
 * @param {HTMLElement[]} elements
 */
function putInOrder(container, elements) {
  const present = [...container.children];
  if (present.length === elements.length && present.every((element, i) => element === elements[i])) return;
  const focused = document.activeElement;
  container.replaceChildren(...elements);
  if (container.contains(focused)) focused.focus({ preventScroll: true });
}

/**
 * Make the lists of a query's samples.
 *
 * @param {Page} page
 * @param {Query} query
 * @param {Sample[]} samples
 * @returns {{ update: (views: { proponents: View[], opponents: View[] }, selected: boolean) => void }}
 */
function makeSampleLists(page, query, samples) {
  const cards = new Map();
  const limits = { proponents: SHOWN_AT_FIRST, opponents: SHOWN_AT_FIRST };

  function cardOf(side, number) {
    const key = `${side} ${number}`;
    if (!cards.has(key)) cards.set(key, makeCard(page, query, number, samples[number]));
    return cards.get(key);
  }

  function fill(side, views, scale) {
    const shown = views.slice(0, limits[side]);
    const elements = shown.map((view, i) => {
      const card = cardOf(side, view.sample);
      card.update(view, String(i + 1), scale);
      return card.element;
    });
    putInOrder(byId(`${side}-list`), elements);
    byId(`${side}-count`).textContent = count(views.length);
    byId(`${side}-none`).hidden = views.length > 0;
    const rest = views.length - shown.length;
    const more = byId(`${side}-more`);
    more.hidden = rest === 0;
    more.textContent = `Show ${plural(rest, "more sample", "more samples")}`;
    more.onclick = () => {
      limits[side] += 10 * SHOWN_AT_FIRST;
      fill(side, views, scale);
    };
  }

  return {
    update(views, selected) {
      const all = SIDES.flatMap((side) => views[side]);
      const scale = {
        selected,
        most: all.reduce((most, view) => Math.max(most, largest(view.influences ?? [])), 0),
        widest: largest(all.map((view) => view.value)),
      };
      for (const side of SIDES) fill(side, views[side], scale);
      document.querySelectorAll(".meant").forEach((meant) => {
        meant.textContent = selected ? "these words" : "this answer";
      });
      const hint = query.hasMatrix ? "Click one to see which words it speaks to." : "";
      const detail = [...query.details.values()];
      const shaded = all.some((view) => view.influences !== null);
      showScale(byId("samples-legend"), scale.most, selected
        ? "Shade of a token: its influence on the selected words."
        : "Shade of a token: its influence on the whole answer.", hint);
      byId("samples-unshaded").hidden = shaded || !detail.some(({ parts }) => parts.length > 0);
    },
  };
}

/** Make the tabs of the two lists work. Both lists stay in the page, so that both are printed. */
function wireTabs() {
  const show = (side) => {
    for (const other of SIDES) {
      const tab = byId(`${other}-tab`);
      tab.setAttribute("aria-selected", other === side);
      tab.tabIndex = other === side ? 0 : -1;
      byId(other).classList.toggle("behind", other !== side);
    }
  };
  for (const side of SIDES) {
    const tab = byId(`${side}-tab`);
    const other = SIDES.find((name) => name !== side);
    tab.addEventListener("click", () => show(side));
    tab.addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      show(other);
      byId(`${other}-tab`).focus();
    });
  }
  show("proponents");
}
