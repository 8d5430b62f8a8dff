// The form of filters of a list: dates in the viewer's zone, and no empty filters in the address.

const here = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Without dates in the form, those that are entered next are in the viewer's zone. */
function useZoneOfViewer(form) {
  const zone = form.elements.zone;
  if (!here || zone.value || form.elements.from.value || form.elements.to.value) return; // what is entered is in the page's zone
  zone.value = here;
  for (const name of form.querySelectorAll("[data-zone]")) name.textContent = here;
  for (const link of document.querySelectorAll("a[data-zoned]")) {
    const url = new URL(link.href);
    url.searchParams.set("zone", here);
    link.href = url;
  }
}

function leaveOutEmpty(form, empty) {
  const { from, to, period, zone } = form.elements;
  const zoned = from.value || to.value || period.value === "today";
  for (const field of form.elements) {
    if (field.name && field.name !== "tenant") field.disabled = empty && (!field.value || (field === zone && !zoned));
  }
}

for (const form of document.querySelectorAll("form.finder")) {
  useZoneOfViewer(form);
  form.addEventListener("submit", () => leaveOutEmpty(form, true));
  addEventListener("pageshow", () => leaveOutEmpty(form, false));
}
