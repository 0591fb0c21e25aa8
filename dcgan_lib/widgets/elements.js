// What the widgets' pages share: a widget's script is this file with its own after it; see `script` in page.py.

const limit = (x, low, high) => Math.min(high, Math.max(low, x));

/** Make an element; on… attributes become listeners, true an empty attribute, false and null none. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const button = (text, onclick, attributes = {}) => el("button", { type: "button", class: "dx-button", onclick, ...attributes }, ...(text ? [text] : []));

