// Making elements. Whatever a model or a server says comes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(attribute, value);
  }
  made.append(...children);
  return made;
}

// Change the text of an element only where it is another, so that screen readers hear no repetition.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Blocks between ``` become <pre>, everything else stays as it is.
export function prose(text) {
  const parts = text.split(/^```[^\n]*\n?/m);
  return parts.map((part, index) => {
    if (index % 2 === 0) return element("div", { class: "text" }, index ? part.replace(/^\n/, "") : part);
    return element("pre", { tabindex: "0" }, element("code", {}, part.replace(/\n$/, "")));
  });
}

export function command(text) {
  const code = element("code", { tabindex: "0" }, text);
  const button = element("button", { type: "button", "aria-label": `Copy: ${text}` }, "Copy");
  button.addEventListener("click", () => copy(code, button));
  return element("div", { class: "command" }, code, button);
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  } catch {
    // Browsers keep the clipboard from pages that came without TLS from another machine.
    getSelection().selectAllChildren(code);
  }
}

// Put new rows in the place of old ones only if they are others: what is focused stays so.
export function replace(list, rows) {
  const isSame = rows.length === list.children.length && rows.every((row, index) => row.isEqualNode(list.children[index]));
  if (!isSame) list.replaceChildren(...rows);
}

export function bytes(size) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; size >= 1000 && unit < 4; unit += 1) size /= 1000;
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}
