"""What a model puts out under a condition: its loss, its KL from another and its greedy choices.

1. `scoring`: which tokens count, sums by document, what arithmetic alone changes.
2. `head`, `divergence`: final states, and KL and losses computed from them a few tokens at a time.
3. `splicing`, `conditions`: dictionaries in the stream, the adapter off, a latent steered.
4. `evaluation`: several conditions on the same tokens. `responses`: losses of responses.
"""
