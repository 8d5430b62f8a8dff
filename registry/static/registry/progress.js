// Progress of a job in words, as the filter `progress_text` of queueing/templatetags/jobs.py.

export function progressText({ done, total, message }) {
  const counted = total === null ? done.toLocaleString("en") : `${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
  return message ? `${counted}: ${message}` : counted;
}
