// Building and finding elements. Text of the data reaches the page through textContent alone.

const byId = (id) => document.getElementById(id);

/** A new element with classes, attributes and children (elements or text). */
function make(name, classes = "", attributes = {}, children = []) {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Text of the data, whose direction cannot leave it. */
const isolated = (text, classes = "") => make("bdi", classes, {}, [text]);

function button(label, classes, onClick) {
  const element = make("button", classes, { type: "button" }, [label]);
  element.addEventListener("click", onClick);
  return element;
}

/** Shows a legend's scale: what the strongest colours stand for, and how to ask for more. */
function showScale(legend, most, what, how = "") {
  legend.hidden = !(most > 0);
  legend.querySelector(".least").textContent = signed(-most);
  legend.querySelector(".most").textContent = signed(most);
  legend.querySelector(".what").textContent = what;
  legend.querySelector(".how").textContent = how;
}
