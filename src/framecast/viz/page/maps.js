"use strict";
// One map at a time, chosen by a slider; without this script all of them stand below each other.
for (const card of document.querySelectorAll(".maps")) {
  const maps = [...card.querySelectorAll("figure")];
  const slider = card.querySelector("input");
  if (slider === null) continue;
  const date = card.querySelector("output");
  function show() {
    maps.forEach((map, i) => { map.hidden = i !== Number(slider.value); });
    date.textContent = maps[Number(slider.value)].dataset.date;
  }
  slider.parentElement.hidden = false;
  slider.addEventListener("input", show);
  show();
}
