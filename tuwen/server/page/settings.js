// What the browser remembers: the language, the colours. Never pictures, words or captions.
const KEY = "tuwen";

export function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) || "{}");
  } catch {
    return {};
  }
}

export function remember(change) {
  try {
    localStorage.setItem(KEY, JSON.stringify({ ...read(), ...change }));
  } catch {
    /* storage is full or forbidden: it holds for this visit */
  }
}
