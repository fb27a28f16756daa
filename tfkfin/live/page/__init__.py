"""The page of a live session: Bokeh's server, in a process of its own, so that it cannot slow decisions.

Bokeh, because its server pushes what is new to canvases that are kept, without JavaScript of our own.
"""
