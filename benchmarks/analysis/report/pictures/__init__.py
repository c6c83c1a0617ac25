"""The pictures of a report, a module for each, and what a picture shows of its summary and cases."""
