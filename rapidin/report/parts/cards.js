// A training sample as a card. It is built once and then only renumbered and re-shaded.

const LONGEST_PROMPT = 320;
const LONGEST_RESPONSE = 1200;
const LONGEST_FACT = 160;

/**
 * Cut a text that is too long for a line.
 *
 * @param {string} text
 * @returns {string}
 */
const clipped = (text) => (text.length > LONGEST_FACT ? `${text.slice(0, cut(text, 0, text.length, LONGEST_FACT))}…` : text);

/**
 * Make a paragraph that shows one part of a text until the reader asks for all of it.
 *
 * @param {string} name class of the paragraph
 * @param {Span} closed the part that is shown first
 * @param {Span} whole the part that is shown when the reader asks for all
 * @param {(paragraph: HTMLElement, from: number, to: number) => void} build fills the paragraph with a part of the text
 * @returns {HTMLElement}
 */
function makeTextBlock(name, closed, whole, build) {
  const paragraph = make("p", name, { dir: "auto" });
  const hidden = whole[1] - whole[0] - (closed[1] - closed[0]);
  const all = `Show all ${count(whole[1] - whole[0])} characters`;
  let open = false;
  // Text that a template put around a prompt needs no words on its button, but the larger part of a text does.
  const label = () => (open ? "Show less" : hidden < 500 ? "…" : all);
  const toggle = button("", "quiet more", () => {
    open = !open;
    draw();
    toggle.focus();
  });
  function draw() {
    build(paragraph, ...(open ? whole : closed));
    toggle.textContent = label();
    toggle.setAttribute("aria-label", open ? "Show less" : all);
    toggle.setAttribute("aria-expanded", open);
    if (hidden > 0) paragraph.append(" ", toggle);
  }
  draw();
  return paragraph;
}

/**
 * Make the lines that say where a sample comes from.
 *
 * @param {Sample} sample
 * @returns {HTMLElement[]}
 */
function provenance(sample) {
  const cutOff = sample.truncated ? ", truncated" : "";
  const facts = make("p", "source", {}, [
    isolated(clipped(sample.id), "id"),
    make("span", "", {}, [isolated(clipped(sample.file)), `, row ${sample.row}`]),
    make("span", "", {}, [`${plural(sample.tokens, "token")}, ${plural(sample.targets, "target")}${cutOff}`]),
  ]);
  const metadata = sample.metadata.map(([name, value]) => make("div", "", {}, [
    make("dt", "", {}, [isolated(clipped(name))]), make("dd", "", {}, [isolated(clipped(value))]),
  ]));
  return metadata.length === 0 ? [facts] : [facts, make("dl", "metadata", {}, metadata)];
}

/**
 * Make the card of a sample.
 *
 * @param {Page} page gives the tooltip, and is told by `pick` which token was clicked
 * @param {Query} query
 * @param {number} number the sample's number
 * @param {Sample} sample
 * @returns {{ element: HTMLElement, update: (view: View, position: string, scale: Scale) => void }}
 */
function makeCard(page, query, number, sample) {
  const detail = query.details.get(number);
  const figures = make("div", "figures");
  const rank = make("span", "rank");
  const bar = make("span", "bar", { "aria-hidden": "true" });
  const shown = new Map();
  let latest = null;

  const sum = (values, piece) => piece.parts.reduce((total, part) => total + (values?.[part] ?? 0), 0);
  function colour(element, piece) {
    shade(element, sum(latest?.view.influences, piece), latest?.most ?? 0);
  }
  function lines(piece) {
    const { view, selected } = latest;
    const name = piece.parts.length > 1 ? `${piece.parts.length} tokens` : "token";
    const said = [[name, JSON.stringify(sample.text.slice(piece.start, piece.end))]];
    if (selected) said.push(["on the selected words", view.influences ? signed(sum(view.influences, piece)) : "not computed"]);
    if (detail.influences.length > 0) {
      const whole = sum(detail.influences, piece);
      const total = detail.influences.reduce((a, b) => a + b, 0);
      said.push([selected ? "on the whole answer" : "influence", signed(whole)]);
      if (!selected && total !== 0) said.push(["of the sample's sum", signed(total)]);
    }
    return said;
  }
  const build = (paragraph, from, to) => {
    for (const element of shown.keys()) if (paragraph.contains(element)) shown.delete(element);
    const pieces = piecesOf(sample.text, detail.parts, from, to);
    layOut(paragraph, sample.text, pieces, from, to, (piece) => {
      const element = pieceElement(sample.text.slice(piece.start, Math.min(piece.end, to)), "token");
      if (detail.matrix === null) element.removeAttribute("role");
      else element.addEventListener("click", () => page.pick(number, piece.parts, element));
      shown.set(element, piece);
      page.tooltip.speak(element, () => lines(piece));
      colour(element, piece);
      return element;
    }, (a, b) => [sample.text.slice(a, b)]);
    const first = paragraph.querySelector(".piece");
    if (first) first.tabIndex = 0;
  };

  const [ownStart, ownEnd] = sample.own;
  const { text, split } = sample;
  const prompt = makeTextBlock("prompt", [ownStart, cut(text, ownStart, ownEnd, LONGEST_PROMPT)], [0, split], build);
  const response = makeTextBlock(
    "response", [split, cut(text, split, text.length, LONGEST_RESPONSE)], [split, text.length], build,
  );
  const heading = make("h3", "figure-line", {}, [rank, figures]);
  const element = make("li", "card", {}, [make("article", detail.matrix === null ? "" : "speaking", {}, [
    heading, bar, prompt, response, ...provenance(sample),
  ])]);
  for (const paragraph of [prompt, response]) {
    rove(paragraph, ".piece");
    paragraph.addEventListener("keydown", (event) => {
      if ((event.key !== "Enter" && event.key !== " ") || !shown.has(event.target)) return;
      event.preventDefault();
      event.target.click();
    });
  }

  return {
    element,
    /** Show the card's new position, numbers and shades. */
    update(view, position, { selected, most, widest }) {
      latest = { view, selected, most };
      rank.textContent = position;
      figures.replaceChildren(...figuresOf(view, detail, selected));
      bar.style.setProperty("--share", widest > 0 ? (Math.abs(view.value) || 0) / widest : 0);
      element.classList.toggle("against", view.value < 0);
      for (const [piece, parts] of shown) colour(piece, parts);
    },
  };
}

/**
 * Make the numbers of a card, beginning with the one that it is ranked by.
 *
 * @param {View} view
 * @param {Detail} detail
 * @param {boolean} selected whether words are selected
 * @returns {HTMLElement[]}
 */
function figuresOf(view, detail, selected) {
  const figure = (name, value, kind = "second") => make("span", kind, {}, [
    make("span", "value", {}, [signed(value)]), " ", make("span", "name", {}, [name]),
  ]);
  const found = [];
  if (view.exact !== null) found.push(figure(selected ? "on these words" : "exact score", view.exact, "first"));
  if (view.estimate !== null) {
    found.push(figure(found.length ? "estimated" : selected ? "estimated on these words" : "estimated score", view.estimate, found.length ? "second" : "first"));
  }
  if (selected && view.estimate !== null && view.found < view.of) {
    found.push(make("span", "second", {}, [`in the lists of ${view.found} of ${plural(view.of, "token")}`]));
  }
  if (selected && detail.rank !== null) found.push(figure("whole answer", detail.exact ?? detail.estimate));
  return found;
}
