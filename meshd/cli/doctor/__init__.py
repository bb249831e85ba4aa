"""The checks of `meshd doctor`: `probes` collects facts, `checks` turns them into findings."""
