// Tables and code that scroll within themselves can be scrolled from the keyboard, and a button to copy is no landmark.
const reach = () => {
  document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code").forEach((one) => {
    if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
    else one.removeAttribute("tabindex");
  });
  document.querySelectorAll("nav.md-code__nav").forEach((one) => one.setAttribute("role", "none"));
};
let waiting = 0;
const soon = () => {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(reach);
};
addEventListener("load", soon);
addEventListener("resize", soon);
new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
