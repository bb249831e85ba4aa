"""Images of a Docker Engine: names, logins, pulls and builds."""
