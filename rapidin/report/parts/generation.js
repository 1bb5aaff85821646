// The generation, whose words the reader points at.

/**
 * A column of a matrix that the words are shaded by.
 *
 * @typedef {object} Light
 * @property {number[]} values influence of one token of a sample, by word
 * @property {string} label the token
 */

/**
 * The generation on the page.
 *
 * @typedef {object} Generation
 * @property {HTMLElement[]} elements by word
 * @property {(element: HTMLElement) => void} extend extend the selection to a word
 * @property {(element: HTMLElement) => void} anchorAt let the next extension begin at a word
 * @property {(words: number[], light: Light|null) => void} update show a selection
 */

/**
 * Show a query's generation.
 *
 * @param {Page} page
 * @param {Query} query
 * @param {(words: number[]) => void} choose is called with the numbers of the words that the reader selects
 * @returns {Generation}
 */
function makeGeneration(page, query, choose) {
  const container = byId("generation");
  const text = query.generation;
  const elements = [];
  const overall = influencesOnWords(query);
  let selected = new Set();
  let anchor = null;
  let column = null;
  let dragFrom = null;
  let dragged = false;

  const asked = (start, end) => query.spans.some(([a, b]) => a < end && start < b);
  const range = (one, other) => {
    const [low, high] = one < other ? [one, other] : [other, one];
    return Array.from({ length: high - low + 1 }, (_, i) => low + i);
  };
  const gap = (from, to) => {
    const ends = [...new Set([from, to, ...query.spans.flat().filter((end) => end > from && end < to)])].sort((a, b) => a - b);
    return ends.slice(1).map((end, i) => (asked(ends[i], end)
      ? make("span", "asked", {}, [text.slice(ends[i], end)])
      : text.slice(ends[i], end)));
  };

  function lines(word) {
    const [start, end] = query.words[word];
    const said = [["word", JSON.stringify(text.slice(start, end))]];
    if (column) said.push([`from “${column.label}”`, signed(column.values[word])]);
    if (overall) said.push(["from the proponents", signed(overall[word])]);
    return said;
  }

  const pieces = query.words.map(([start, end], number) => ({ start, end, number }));
  layOut(container, text, pieces, 0, text.length, ({ start, end, number }) => {
    const element = pieceElement(text.slice(start, end), "word");
    if (!query.selectable) element.removeAttribute("role");
    element.dataset.word = number;
    element.classList.toggle("asked", start < end && asked(start, end));
    page.tooltip.speak(element, () => lines(number));
    elements[number] = element;
    return element;
  }, gap);
  container.classList.toggle("selectable", query.selectable);

  /**
   * Change the selection. With Shift, the words from the last one that was pointed at are selected; with Ctrl, the word
   * is added or taken away. Otherwise the word alone is selected, or nothing if it was selected alone.
   *
   * @param {number} word
   * @param {MouseEvent|KeyboardEvent} event
   */
  function point(word, event) {
    if (event.shiftKey && anchor !== null) return choose(range(anchor, word));
    anchor = word;
    if (event.ctrlKey || event.metaKey) {
      return choose(selected.has(word) ? [...selected].filter((other) => other !== word) : [...selected, word]);
    }
    return choose(selected.size === 1 && selected.has(word) ? [] : [word]);
  }
  const wordOf = (event) => {
    const element = event.target instanceof Element ? event.target.closest(".word") : null;
    return element && query.selectable ? Number(element.dataset.word) : null;
  };
  container.onpointerdown = (event) => {
    const word = wordOf(event);
    dragged = false;
    // A moving finger scrolls the page, and does not select words.
    dragFrom = event.pointerType === "touch" || event.button !== 0 ? null : word;
  };
  container.onmousedown = (event) => {
    if (wordOf(event) === null) return;
    event.preventDefault(); // prevents the browser's own selection of text
    elements[wordOf(event)].focus();
  };
  container.onpointerover = (event) => {
    const word = wordOf(event);
    if (dragFrom === null || word === null || (word === dragFrom && !dragged)) return;
    dragged = true;
    anchor = dragFrom;
    choose(range(dragFrom, word));
  };
  window.onpointerup = () => { dragFrom = null; };
  container.onclick = (event) => {
    const word = wordOf(event);
    if (word !== null && !dragged) point(word, event);
  };
  container.onkeydown = (event) => {
    const word = wordOf(event);
    if (word === null || (event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    point(word, event);
  };

  return {
    elements,
    extend(element) {
      if (query.selectable && anchor !== null) choose(range(anchor, Number(element.dataset.word)));
    },
    anchorAt(element) { anchor = Number(element.dataset.word); },
    /** Mark the selected words; shade all words by `light`, or by the proponents' sums if it is null. */
    update(words, light) {
      selected = new Set(words);
      container.classList.toggle("narrowed", selected.size > 0 && light === null);
      column = light;
      const values = light ? light.values : overall;
      const most = largest(values ?? []);
      elements.forEach((element, word) => {
        const value = values?.[word] ?? 0;
        shade(element, value, most);
        element.classList.toggle("lit", light !== null && strength(value, most) >= 0.5);
        element.classList.toggle("selected", selected.has(word));
        if (query.selectable) element.setAttribute("aria-pressed", selected.has(word));
      });
      showScale(byId("generation-legend"), most, light
        ? `Shade of a word: influence of “${light.label}”, a token of a sample, on it.`
        : "Shade of a word: sum of the shown proponents’ influences on it.");
    },
  };
}
