"use strict";
// Type to find a video by its name.
const field = document.getElementById("find");
const videos = [...document.querySelectorAll(".video")];
const shown = document.getElementById("shown");
if (field) {
  field.parentElement.hidden = false;
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const video of videos) {
      video.hidden = !video.dataset.name.toLowerCase().includes(wanted);
    }
    const visible = videos.filter((video) => !video.hidden).length;
    shown.textContent = visible === videos.length ? "" : visible + " of " + videos.length;
  });
}
