"""The page of a live session: Bokeh's server, in a process of its own, so that it cannot slow decisions.

Bokeh's server sends only new data to plots that stay in the browser, so that this needs no JavaScript of its own.
"""
