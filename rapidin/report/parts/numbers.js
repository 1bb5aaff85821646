// Numbers as people read them, and as shades.

/**
 * Write a number with its sign and four decimal places; very small and very large ones get an exponent.
 *
 * @param {number|null|undefined} value
 * @returns {string} a dash if there is no number
 */
function signed(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "—";
  const size = Math.abs(value);
  const digits = size === 0 ? "0" : size < 0.001 || size >= 100000 ? size.toExponential(2) : size.toFixed(4);
  const sign = value < 0 ? "−" : value > 0 ? "+" : "";
  return `${sign}${digits.replace("e-", "e−").replace("e+", "e")}`;
}

/**
 * Write a whole number with separators of thousands.
 *
 * @param {number} value
 * @returns {string}
 */
const count = (value) => value.toLocaleString("en-US");

/**
 * Write a number with the word for what is counted.
 *
 * @param {number} value
 * @param {string} one the word in the singular
 * @param {string} [many] the word in the plural
 * @returns {string}
 */
const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/**
 * Find the largest absolute value, which gets the strongest colour.
 *
 * @param {number[]} values
 * @returns {number}
 */
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0);

/**
 * Compute the strength of a colour. The power makes small values visible: half the strength stands for 0.35 of `most`.
 *
 * @param {number} value
 * @param {number} most value that gets the strongest colour
 * @returns {number} strength from 0 to 1
 */
const strength = (value, most) => (most > 0 && value ? Math.min(1, (Math.abs(value) / most) ** (2 / 3)) : 0);

/**
 * Colour an element by a value.
 *
 * @param {HTMLElement} element
 * @param {number} value
 * @param {number} most value that gets the strongest colour
 */
function shade(element, value, most) {
  element.style.setProperty("--strength", strength(value, most).toFixed(3));
  element.classList.toggle("away", value < 0);
}
