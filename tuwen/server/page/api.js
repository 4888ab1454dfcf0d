// The REST of this server, as the page uses it; /docs describes it. Nothing else talks to a network.
export class Problem extends Error {
  /** What went wrong, as the server says it in one line; `status` 0 where it was not reached. */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function call(path, { signal, method = "GET", json, form } = {}) {
  const options = { method, signal };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers = { "Content-Type": "application/json" };
  }
  if (form) options.body = form;
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("", 0);
  }
  if (answer.status === 204) return {};
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(body.error || answer.statusText, answer.status);
  return body;
}

const query = (values) => {
  const set = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return set.length ? `?${new URLSearchParams(set)}` : "";
};

function asForm(values) {
  const form = new FormData();
  for (const [key, value] of Object.entries(values)) {
    if (value !== undefined && value !== null && value !== "") form.append(key, value);
  }
  return form;
}

/** A page of hits: by words, by a picture (a File), or both; `like` is the id of a picture in the index. */
export function search({ image, like, ...asked }, { offset, k, signal }) {
  if (like) return call(`api/similar/${like}${query({ offset, k })}`, { signal });
  if (image) return call("api/search", { method: "POST", form: asForm({ image, ...asked, offset, k }), signal });
  return call(`api/search${query({ ...asked, offset, k })}`, { signal });
}

/** What the two makers look at: a picture of the index, or one that was dropped here. */
const target = ({ id, file }) => (id ? { id } : { upload: file });

export const picture = (id, signal) => call(`api/pictures/${id}`, { signal });
export const describe = (of, lang) => call("api/caption", { method: "POST", form: asForm({ ...target(of), lang }) });
export const ask = (of, question) => call("api/ask", { method: "POST", form: asForm({ ...target(of), question }) });
export const correct = (id, text, lang) => call(`api/pictures/${id}/caption`, { method: "PUT", json: { text, lang } });
export const draw = (prompt, n, seed) => call("api/draw", { method: "POST", json: { prompt, n, seed } });
export const duplicates = (signal) => call("api/duplicates", { signal });
export const stats = (signal) => call("api/stats", { signal });

const album = (name) => `api/albums/${encodeURIComponent(name)}`;
export const albums = (signal) => call("api/albums", { signal });
export const readAlbum = (name, signal) => call(album(name), { signal });
export const makeAlbum = (name, ids) => call("api/albums", { method: "POST", json: { name, ids } });
export const changeAlbum = (name, change) => call(album(name), { method: "PUT", json: change });
export const dropAlbum = (name) => call(album(name), { method: "DELETE" });
export const albumFile = (name, format) => `${album(name)}/export?format=${format}`;

export const corrections = (signal) => call("api/corrections", { signal });
export const exportCorrections = () => call("api/corrections/export", { method: "POST" });
export const tuning = (signal) => call("api/tune", { signal });
export const startTuning = (how) => call("api/tune", { method: "POST", json: how });

/** The address of a thumbnail whose longer side is at most `side` pixels; up to 320 the index keeps them. */
export const thumbnail = (hit, side) => `${hit.thumbnail.replace(/^\//, "")}?side=${side}`;
