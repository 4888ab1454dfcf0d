// Questions about a picture, with where the model looked; and captions that it makes.
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { told, useApp } from "./app.js";
import { ask, describe } from "./api.js";
import { Icon } from "./icons.js";
import { Button, Spinner, Warnings } from "./parts.js";

/** `of` is {id} or {file}; `look(attention)` shows where the model looked, null takes it away. */
export function Ask({ of, look, looking }) {
  const { t, say } = useApp();
  const [asked, set] = useState([]); // newest first
  const [text, type] = useState("");
  const [busy, wait] = useState(null);
  const [error, fail] = useState(null);
  const input = useRef();
  const put = async (question) => {
    if (!question.trim() || busy) return;
    wait(question);
    fail(null);
    try {
      const answer = await ask(of, question.trim());
      set((before) => [answer, ...before.filter((one) => one.question !== answer.question)]);
      type((now) => (now === question ? "" : now)); // the next question may be half written
      look(answer.attention);
      say(`${answer.sure ? "" : `${t("not_sure")} `}${answer.best[0].text}`);
    } catch (problem) {
      fail(problem);
    }
    wait(null);
  };
  return html`<section class="part" aria-labelledby="ask-title">
    <h3 id="ask-title">${t("ask")}</h3>
    <form class="line" onSubmit=${(event) => { event.preventDefault(); put(text); }}>
      <input ref=${input} id="question" value=${text} onInput=${(event) => type(event.currentTarget.value)} placeholder=${t("ask_hint")}
        aria-label=${t("ask")} maxlength="1000" autocomplete="off" enterkeyhint="send" />
      <button class="button main" disabled=${!text.trim() || busy !== null}><span>${t("ask_button")}</span></button>
    </form>
    ${!asked.length && busy === null && html`<ul class="tries" aria-label=${t("ask_try")}>
      ${[1, 2, 3].map((n) => html`<li key=${n}><button type="button" onClick=${() => put(t(`ask_${n}`))}>${t(`ask_${n}`)}</button></li>`)}
    </ul>`}
    ${busy !== null && html`<${Spinner}>${t("asking")}</${Spinner}>`}
    ${error && html`<p class="problem" role="alert">${told(t, error)}</p>`}
    <div aria-live="polite">${asked.map((answer) => html`<${Answer} key=${answer.question} answer=${answer} look=${look} shown=${looking === answer.attention} />`)}</div>
  </section>`;
}

function Answer({ answer, look, shown }) {
  const { t } = useApp();
  const [first, ...others] = answer.best;
  const top = Math.max(...answer.best.map(({ score }) => score), 1e-9);
  return html`<article class=${`answer${answer.sure ? "" : " unsure"}`}>
    <p class="question">${answer.question}</p>
    ${!answer.sure && html`<p class="doubt"><${Icon} name="help" size="16" />${t("not_sure")}</p>`}
    <p class="first">${first.text}<b class="score">${percent(t, first.score)}</b></p>
    ${others.length > 0 && html`<ul class="others">${others.map((one) => html`<li key=${one.text}>
      <span>${one.text}</span><i><b style=${{ width: `${Math.max(2, (100 * one.score) / top)}%` }}></b></i><small>${percent(t, one.score)}</small></li>`)}</ul>`}
    <${Warnings} lines=${answer.warnings} />
    ${answer.attention && html`<button type="button" class="look" aria-pressed=${shown} onClick=${() => look(shown ? null : answer.attention)}>
      <${Icon} name="eye" size="18" />${shown ? t("looked_hide") : t("looked")}</button>`}
  </article>`;
}

const percent = (t, share) =>
  share >= 0 && share <= 1 ? new Intl.NumberFormat(t.lang, { style: "percent", maximumFractionDigits: share < 0.1 ? 1 : 0 }).format(share) : share.toFixed(2);

/** Captions that the model makes, to take over by hand: `use(text, lang)`. */
export function Describe({ of, use }) {
  const { t, say } = useApp();
  const [state, set] = useState({});
  const make = async () => {
    set({ busy: true });
    try {
      const made = await describe(of, t.lang);
      set({ made });
      say(made.texts[0]?.text || "");
    } catch (error) {
      set({ error });
    }
  };
  return html`<div class="describe">
    ${state.busy ? html`<${Spinner}>${t("describing")}</${Spinner}>` : html`<${Button} icon="spark" kind="quiet" onClick=${make}>${t("describe")}</${Button}>`}
    ${state.error && html`<p class="problem" role="alert">${told(t, state.error)}</p>`}
    ${state.made && html`<${Warnings} lines=${state.made.warnings} />
      <ul class="made" aria-label=${t("suggestions")}>${state.made.texts.map(({ text }) => html`<li key=${text} lang=${state.made.lang}>
        <span>${text}</span>${use && html`<${Button} kind="plain" onClick=${() => use(text, state.made.lang)}>${t("use")}</${Button}>`}</li>`)}</ul>`}
  </div>`;
}

/** Where the model looked, over the picture: a smooth heat map of the grid's weights, or the boxes. */
export function Heat({ attention, width, height }) {
  const { t } = useApp();
  const ref = useRef();
  useEffect(() => (attention.boxes ? boxes : heat)(ref.current, attention, width, height), [attention, width, height]);
  return html`<canvas ref=${ref} class="heat" role="img" aria-label=${t("looked_alt")}></canvas>`;
}

const LONG = 160; // points of the longer side; the browser smooths the rest

function heat(canvas, { rows, columns, weights }, width, height) {
  const scale = LONG / Math.max(width, height);
  canvas.width = Math.max(2, Math.round(width * scale));
  canvas.height = Math.max(2, Math.round(height * scale));
  const [low, high] = [Math.min(...weights), Math.max(...weights)];
  const at = (row, column) => weights[Math.min(rows - 1, Math.max(0, row)) * columns + Math.min(columns - 1, Math.max(0, column))];
  const ease = (x) => x * x * (3 - 2 * x);
  const pen = canvas.getContext("2d");
  const out = pen.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    const v = ((y + 0.5) / canvas.height) * rows - 0.5;
    for (let x = 0; x < canvas.width; x++) {
      const u = ((x + 0.5) / canvas.width) * columns - 0.5;
      const [r, c] = [Math.floor(v), Math.floor(u)];
      const [a, b] = [ease(v - r), ease(u - c)];
      const weight = (1 - a) * ((1 - b) * at(r, c) + b * at(r, c + 1)) + a * ((1 - b) * at(r + 1, c) + b * at(r + 1, c + 1));
      const share = high > low ? (weight - low) / (high - low) : 0;
      out.data.set(colour(share ** 0.8), 4 * (y * canvas.width + x));
    }
  }
  pen.putImageData(out, 0, 0);
}

/** A dark veil where it did not look, clear, then amber and red where it looked most. */
function colour(share) {
  if (share < 0.3) return [12, 10, 14, 120 * (1 - share / 0.3)];
  const hot = (share - 0.3) / 0.7;
  return [255, 190 - 130 * hot, 50 - 20 * hot, 165 * hot];
}

function boxes(canvas, { boxes, weights }, width, height) {
  const scale = 1200 / Math.max(width, height);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  const top = Math.max(...weights, 1e-9);
  const order = weights.map((weight, n) => [weight / top, n]).sort(([a], [b]) => a - b);
  pen.fillStyle = "rgb(12 10 14 / .45)";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  for (const [share, n] of order.filter(([weight]) => weight > 0.15)) {
    const [left, upper, right, lower] = boxes[n].map((value) => value * scale);
    pen.lineWidth = 2 + 6 * share;
    pen.strokeStyle = `rgb(255 ${190 - 120 * share} 50 / ${0.25 + 0.75 * share})`;
    if (share === 1) pen.clearRect(left, upper, right - left, lower - upper);
    pen.strokeRect(left, upper, right - left, lower - upper);
  }
}
