"use strict";
// Segments of the timeline and rows of the table light up together; classes can be singled out.
const segments = [...document.querySelectorAll(".seg")];
const rows = [...document.querySelectorAll("tr[data-segment]")];
const lanes = [...document.querySelectorAll(".lane-track")];
const choices = [...document.querySelectorAll("button[data-class]")];
const shown = document.getElementById("shown");

function light(id) {
  for (const item of [...segments, ...rows]) {
    item.classList.toggle("on", id !== null && item.dataset.segment === id);
  }
  for (const lane of lanes) {
    lane.classList.toggle("one-on", id !== null && lane.querySelector(".seg.on") !== null);
  }
}

for (const item of [...segments, ...rows]) {
  if (item.dataset.segment === undefined) continue;
  item.addEventListener("pointerenter", () => light(item.dataset.segment));
  item.addEventListener("pointerleave", () => light(null));
  item.addEventListener("focusin", () => light(item.dataset.segment));
  item.addEventListener("focusout", () => light(null));
}

let chosen = null;
for (const choice of choices) {
  choice.addEventListener("click", () => {
    chosen = chosen === choice.dataset.class ? null : choice.dataset.class;
    for (const other of choices) {
      other.setAttribute("aria-pressed", String(other.dataset.class === chosen));
    }
    for (const item of segments) {
      item.classList.toggle("dim", chosen !== null && item.dataset.class !== chosen);
    }
    for (const row of rows) {
      row.hidden = chosen !== null && row.dataset.class !== chosen;
    }
    const visible = rows.filter((row) => !row.hidden).length;
    shown.textContent = chosen === null ? "" : visible + " of " + rows.length + " shown";
  });
}

// A segment too short for its name shows its number in the table, a shorter one its colour only.
function fit() {
  for (const text of document.querySelectorAll(".lane-track text")) {
    const room = text.ownerSVGElement.getBoundingClientRect().width;
    const number = text.closest(".seg").dataset.segment || "";
    text.dataset.name ??= text.textContent;
    text.textContent = text.dataset.name;
    if (text.getComputedTextLength() + 10 > room) text.textContent = number;
    text.classList.toggle("hide", text.getComputedTextLength() + 3 > room);
  }
  // Every tick, or every second, fourth, … one: as many as stand apart.
  const ticks = [...document.querySelectorAll(".axis text")];
  const boxes = ticks.map((tick) => tick.getBoundingClientRect());
  let step = 1;
  const touching = (box, i) => i % step === 0 && i >= step && box.left < boxes[i - step].right + 12;
  while (step < ticks.length && boxes.some(touching)) step *= 2;
  ticks.forEach((tick, i) => tick.classList.toggle("hide", i % step !== 0));
}
fit();
new ResizeObserver(fit).observe(document.querySelector(".timeline"));
addEventListener("beforeprint", fit);

// The picture of a segment follows the pointer over the timeline.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
for (const item of segments) {
  item.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    if (tip.dataset.of !== item.dataset.tip) {
      tip.replaceChildren();
      const row = rows.find((other) => other.dataset.segment === item.dataset.segment);
      const picture = row && row.querySelector("img");
      if (picture) tip.append(picture.cloneNode());
      for (const line of item.dataset.tip.split(" | ")) {
        const part = document.createElement("div");
        part.textContent = line;
        tip.append(part);
      }
      tip.dataset.of = item.dataset.tip;
    }
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const above = event.clientY - tip.offsetHeight - 16;
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = (above > 8 ? above : event.clientY + 22) + "px";
  });
  item.addEventListener("pointerleave", () => { tip.hidden = true; });
}
