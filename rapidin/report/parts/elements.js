// Building and finding elements. Text of the data is added as text, never as HTML.

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 *
 * @param {string} name
 * @param {string} [classes]
 * @param {Object<string, string>} [attributes]
 * @param {(Node|string)[]} [children]
 * @returns {HTMLElement}
 */
function make(name, classes = "", attributes = {}, children = []) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/**
 * Make an element for text of the data; if the text is written from right to left, the text around it stays in place.
 *
 * @param {string} text
 * @param {string} [classes]
 * @returns {HTMLElement}
 */
const isolated = (text, classes = "") => make("bdi", classes, {}, [text]);

/**
 * Make a button.
 *
 * @param {string} label
 * @param {string} classes
 * @param {(event: MouseEvent) => void} onClick
 * @returns {HTMLElement}
 */
function button(label, classes, onClick) {
  const element = make("button", classes, { type: "button" }, [label]);
  element.addEventListener("click", onClick);
  return element;
}

/**
 * Show a legend's scale; it is hidden if nothing is shaded.
 *
 * @param {HTMLElement} legend
 * @param {number} most influence that the strongest colour stands for
 * @param {string} what meaning of the shades
 * @param {string} [how] how the reader can see more
 */
function showScale(legend, most, what, how = "") {
  legend.hidden = !(most > 0);
  legend.querySelector(".least").textContent = signed(-most);
  legend.querySelector(".most").textContent = signed(most);
  legend.querySelector(".what").textContent = what;
  legend.querySelector(".how").textContent = how;
}
