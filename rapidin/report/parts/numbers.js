// Numbers as people read them, and as shades.

/** A signed number of four digits behind the point; very small and very large ones with an exponent. */
function signed(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "—";
  const size = Math.abs(value);
  const digits = size === 0 ? "0" : size < 0.001 || size >= 100000 ? size.toExponential(2) : size.toFixed(4);
  const sign = value < 0 ? "−" : value > 0 ? "+" : "";
  return `${sign}${digits.replace("e-", "e−").replace("e+", "e")}`;
}

const count = (value) => value.toLocaleString("en-US");

const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** The largest size among values, which takes the strongest colour. */
const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value) || 0), 0);

/** Strength of a colour, 0 to 1. The power lets small values be seen: half the strength is 0.35 of the most. */
const strength = (value, most) => (most > 0 && value ? Math.min(1, (Math.abs(value) / most) ** (2 / 3)) : 0);

/** Colour an element by a value. */
function shade(element, value, most) {
  element.style.setProperty("--strength", strength(value, most).toFixed(3));
  element.classList.toggle("away", value < 0);
}
