"""Find a good learning rate, batch size and warm-up for a recipe on this machine.

space.py    what is tried, and what it changes in a recipe
sibling.py   the narrower model on which a wide recipe is tuned
rounds.py   how many trials of which length a budget of minutes allows
search.py   successive halving: rounds of trials, each an ablation in its own folder
result.py   the table, and the recipe that extends the one given
"""
