// The lists of refunds and of disputes, which are refreshed.

import "./finder.js";
import "./page.js";
import { refreshing } from "./table.js";

const REFRESH_EVERY = 5000; // ms while the page is visible

refreshing(document.getElementById("reversals"), REFRESH_EVERY);
