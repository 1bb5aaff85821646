// A text with pieces in it that can be shaded, focused and clicked.

/**
 * Pieces of text[from, to) under the given parts [start, end]: { start, end, parts: numbers }. Parts that overlap,
 * bytes of one character, share a piece. A part belongs where its last character stands; an empty one, such as the
 * end of a sequence, where it begins. Space before a word is not shaded with it.
 */
function piecesOf(text, parts, from, to) {
  const pieces = [];
  parts.forEach(([start, end], number) => {
    const last = end > start ? end - 1 : start;
    if (last < from || (last >= to && !(last === to && to === text.length))) return;
    const previous = pieces[pieces.length - 1];
    const characters = text.slice(Math.max(start, from), end);
    const blank = characters.trim() === "" ? 0 : characters.length - characters.trimStart().length;
    const begin = Math.max(start, from) + blank;
    if (previous && begin < previous.end) {
      previous.parts.push(number);
      previous.end = Math.max(previous.end, end);
    } else {
      pieces.push({ start: begin, end: Math.max(begin, end), parts: [number] });
    }
  });
  return pieces;
}

/** What stands for a piece that cannot be seen: null, where it can. */
function glyphOf(characters) {
  if (characters === "") return "end";
  if (characters.trim() !== "") return null;
  return characters.includes("\n") ? "line" : null;
}

/** The element of a piece. */
function pieceElement(characters, classes, label) {
  const element = make("span", `piece ${classes}`, { role: "button", tabindex: "-1" }, [characters]);
  const glyph = glyphOf(characters);
  if (glyph) element.dataset.glyph = glyph;
  if (label || characters.trim() === "") {
    element.setAttribute("aria-label", label || (characters === "" ? "end of sequence" : "white space"));
  }
  return element;
}

/** Put text[from, to) into an element: pieces through `elementOf(piece)`, what lies between through `gap(a, b)`. */
function layOut(container, text, pieces, from, to, elementOf, gap) {
  const nodes = [];
  let at = from;
  for (const piece of pieces) {
    if (piece.start > at) nodes.push(...gap(at, piece.start));
    nodes.push(elementOf(piece));
    at = Math.max(at, piece.end);
  }
  if (to > at) nodes.push(...gap(at, to));
  container.replaceChildren(...nodes);
}

/** Where a text of `length` that is too long for a card is cut; the same length: it is not. */
const cut = (text, from, to, most) => {
  if (to - from <= most * 1.25) return to;
  const space = text.lastIndexOf(" ", from + most);
  const at = space > from + most / 2 ? space : from + most;
  // Never between the halves of one character.
  return (text.charCodeAt(at) & 0xfc00) === 0xdc00 ? at - 1 : at;
};
