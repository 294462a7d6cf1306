"""Rollout: a mode rises one step at a time, on measured figures and two people's word (SPEC 10).

A promotion is proposed by one person and signed by another; each time the figures are measured
anew and a figure that is missing refuses it by name. Lowering a mode needs none of this.
"""
