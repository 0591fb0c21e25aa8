// Scripts of type text/later are large and wait: Jupyter's widgets until a control is near the reader, MathJax on a
// page without formulae only to be in the browser's cache for the next one.
(() => {
  // A page from a disk may not read its neighbours, so there search shows titles alone.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  const loadWidgets = () => {
    // The controls still speak to MathJax 2.
    if (window.MathJax) MathJax.Hub ??= { Queue: ([, , element]) => MathJax.typesetPromise?.([element]) };
    for (const script of document.querySelectorAll('script[type="text/later"]:not([data-prefetch])')) {
      const real = document.createElement("script");
      for (const { name, value } of script.attributes) if (name !== "type") real.setAttribute(name, value);
      real.async = false; // in this order
      document.head.append(real);
    }
  };

  // The controls come without names for screen readers: a slider's handle and a picture take the label beside them.
  const labelOf = (element, box) => element.closest(box)?.querySelector(".widget-label")?.textContent;
  const nameControls = () => {
    for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
      const label = labelOf(handle, ".widget-hbox, .widget-inline-hbox");
      if (label) handle.setAttribute("aria-label", label);
    }
    for (const image of document.querySelectorAll("img.widget-image:not([alt])")) {
      const caption = labelOf(image, ".widget-vbox");
      if (caption) image.alt = caption;
    }
  };

  const start = () => {
    const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
    const places = [...views].map((view) => view.parentElement);
    const near = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      loadWidgets();
    }, { rootMargin: "800px" });
    const changes = new MutationObserver(nameControls);
    for (const place of places) {
      near.observe(place);
      changes.observe(place, { childList: true, subtree: true });
    }
    if (location.protocol === "file:") return;
    for (const script of document.querySelectorAll("script[data-prefetch]")) {
      document.head.append(Object.assign(document.createElement("link"), { rel: "prefetch", as: "script", href: script.src }));
    }
  };
  document.readyState === "complete" ? start() : addEventListener("load", start);
})();
