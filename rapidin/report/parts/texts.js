// Texts that contain pieces, which can be shaded, focused and clicked.

/**
 * A piece of a text, which one or more tokens make up.
 *
 * @typedef {object} Piece
 * @property {number} start
 * @property {number} end
 * @property {number[]} parts numbers of the tokens
 */

/**
 * Divide a part of a text into pieces.
 *
 * Parts that overlap, such as bytes of one character, share a piece. A part is in text[from, to) if its last character
 * is, and an empty part, such as the end of a sequence, if its beginning is. Space before a word is not in its piece.
 *
 * @param {string} text
 * @param {Span[]} parts spans of the tokens
 * @param {number} from
 * @param {number} to
 * @returns {Piece[]}
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

/**
 * Choose a glyph for a piece that cannot be seen.
 *
 * @param {string} characters
 * @returns {string|null} name of the glyph in the styles; null if the piece can be seen
 */
function glyphOf(characters) {
  if (characters === "") return "end";
  if (characters.trim() !== "") return null;
  return characters.includes("\n") ? "line" : null;
}

/**
 * Make the element of a piece.
 *
 * @param {string} characters
 * @param {string} classes
 * @param {string} [label] label for screen readers
 * @returns {HTMLElement}
 */
function pieceElement(characters, classes, label) {
  const element = make("span", `piece ${classes}`, { role: "button", tabindex: "-1" }, [characters]);
  const glyph = glyphOf(characters);
  if (glyph) element.dataset.glyph = glyph;
  if (label || characters.trim() === "") {
    element.setAttribute("aria-label", label || (characters === "" ? "end of sequence" : "white space"));
  }
  return element;
}

/**
 * Fill an element with a part of a text.
 *
 * @template {{ start: number, end: number }} P
 * @param {HTMLElement} container
 * @param {string} text
 * @param {P[]} pieces
 * @param {number} from
 * @param {number} to
 * @param {(piece: P) => Node} elementOf makes the element of a piece
 * @param {(start: number, end: number) => (Node|string)[]} gap makes the nodes between two pieces
 */
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

/**
 * Find where to cut text[from, to) if it is much longer than `most` characters, at a space if possible.
 *
 * @param {string} text
 * @param {number} from
 * @param {number} to
 * @param {number} most
 * @returns {number} offset of the cut; `to` if the text is not cut
 */
const cut = (text, from, to, most) => {
  if (to - from <= most * 1.25) return to;
  const space = text.lastIndexOf(" ", from + most);
  const at = space > from + most / 2 ? space : from + most;
  // A cut must not be between the two units of one character.
  return (text.charCodeAt(at) & 0xfc00) === 0xdc00 ? at - 1 : at;
};
