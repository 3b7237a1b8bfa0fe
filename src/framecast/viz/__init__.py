"""Pictures and pages of results: timelines as PNG, reports as one self-contained HTML file."""
