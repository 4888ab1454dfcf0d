// Pictures in justified rows that keep their shapes: flex alone, nothing is measured and nothing shifts.
import { html, useRef } from "./vendor/preact.js";
import { day, name, useApp } from "./app.js";
import { thumbnail } from "./api.js";
import { Icon } from "./icons.js";
import { above, address, follow, here } from "./route.js";

const NARROW = 0.55;
const WIDE = 2.6;

/** The index keeps thumbnails of 320 pixels; a larger one is made from the file, so only where it shows. */
const side = (r) => (Math.max(r, 1) * (innerWidth < 720 ? 130 : 240) * devicePixelRatio > 420 ? 640 : 320);

const ratio = ({ width, height }) => Math.min(WIDE, Math.max(NARROW, width && height ? width / height : 1));

export function Tile({ hit, hits, told, as = "li" }) {
  const { t, selection, shown } = useApp();
  const file = name(hit.file);
  const chosen = selection.has(hit);
  const open = follow((event) => {
    shown.current = hits;
    if (selection.active && event.detail) selection.toggle(hit);
    else above("picture", hit.id);
  });
  const pick = (event) => (event.shiftKey ? selection.range(hits, hit) : selection.toggle(hit));
  return html`<${as} class=${`tile${chosen ? " chosen" : ""}`} style=${{ "--r": ratio(hit).toFixed(4) }}>
    <a href=${address({ ...here(), picture: hit.id })} class="open" onClick=${open} data-id=${hit.id}
      aria-label=${t("open_picture", { name: hit.caption ? `${hit.caption} (${file})` : file })}>
      <img src=${thumbnail(hit, side(ratio(hit)))} alt="" loading="lazy" decoding="async" draggable="false"
        onLoad=${(event) => event.currentTarget.classList.add("there")} onError=${(event) => event.currentTarget.classList.add("broken")} />
      <span class=${`told${told ? " always" : ""}`} aria-hidden="true">
        <span class="said">${hit.caption || file}</span>
        <span class="facts">${[hit.caption ? file : null, hit.date ? day(t, hit.date) : null].filter(Boolean).join(" · ")}</span>
      </span>
    </a>
    <button type="button" class="pick" role="checkbox" aria-checked=${chosen} aria-label=${t("select", { name: file })} onClick=${pick} tabindex="-1">
      <${Icon} name="check" size="16" />
    </button>
  </${as}>`;
}

export function Grid({ hits, stale, told, label }) {
  const { selection } = useApp();
  const ref = useRef();
  const move = (event) => keys(event, ref.current, hits, selection);
  return html`<ul ref=${ref} class=${`grid${selection.active ? " choosing" : ""}`} aria-label=${label} aria-busy=${Boolean(stale)} onKeyDown=${move}>
    ${hits.map((hit) => html`<${Tile} key=${hit.id} hit=${hit} hits=${hits} told=${told} />`)}
  </ul>`;
}

function keys(event, grid, hits, selection) {
  const at = document.activeElement;
  if (!at?.classList.contains("open") || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = [...grid.querySelectorAll(".open")];
  const here = all.indexOf(at);
  const to = { ArrowRight: () => all[here + 1], ArrowLeft: () => all[here - 1], Home: () => all[0], End: () => all.at(-1) }[event.key];
  const next = to ? to() : ["ArrowDown", "ArrowUp"].includes(event.key) ? beside(all, at, event.key === "ArrowDown") : undefined;
  if (next) {
    event.preventDefault();
    next.focus();
  } else if (event.key === " " || event.key.toLowerCase() === "x") {
    event.preventDefault();
    const hit = hits.find(({ id }) => id === at.dataset.id);
    if (event.shiftKey) selection.range(hits, hit);
    else selection.toggle(hit);
  }
}

/** The tile in the next row below (or above) whose middle is nearest. */
function beside(all, at, below) {
  const middle = (box) => box.left + box.width / 2;
  const from = at.getBoundingClientRect();
  const boxes = all.map((tile) => [tile, tile.getBoundingClientRect()]);
  const other = boxes.filter(([, box]) => (below ? box.top > from.bottom - 2 : box.bottom < from.top + 2));
  if (!other.length) return undefined;
  const row = below ? Math.min(...other.map(([, box]) => box.top)) : Math.max(...other.map(([, box]) => box.top));
  const [tile] = other
    .filter(([, box]) => Math.abs(box.top - row) < 4)
    .reduce((best, one) => (Math.abs(middle(one[1]) - middle(from)) < Math.abs(middle(best[1]) - middle(from)) ? one : best));
  return tile;
}
