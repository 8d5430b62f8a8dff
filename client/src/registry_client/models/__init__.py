"""Objects of the API as frozen structs. Amounts are Decimals, times are aware datetimes."""
