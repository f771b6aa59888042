"""How requests and answers look: errors, JSON bodies, pages of lists, headers, health. No domain lives here."""
