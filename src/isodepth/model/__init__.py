"""Looped decoders: prelude, one recurrent block run r times, coda.

`isodepth.model.config` needs no torch; everything else here does, so nothing is imported until it
is asked for.
"""
