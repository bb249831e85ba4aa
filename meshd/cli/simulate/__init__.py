"""The simulator behind `meshd simulate`: options, recorded traffic, runs and the report."""
