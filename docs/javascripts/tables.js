// A table that scrolls within itself can be scrolled from the keyboard.
const reach = () =>
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((wrap) => {
    if (wrap.scrollWidth > wrap.clientWidth) wrap.tabIndex = 0;
    else wrap.removeAttribute("tabindex");
  });
addEventListener("load", () => requestAnimationFrame(reach));
addEventListener("resize", reach);
