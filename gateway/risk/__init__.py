"""How strange?

- `Risk`: a score for each request of somebody known, from what this gateway has seen of them before, with its
  reasons; remembered for each session and place, and made anew when something changes.
- `agent`, `network`, `country`, `failures`: the signals, one file each.
- `history`: what is remembered of a user, and what may add to it.

Whether a score matters is the policy's to say (`risk: {step_up_at: 0.5, refuse_at: 0.8}`).
"""
