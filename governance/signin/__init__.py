"""Sign-in of people: guesses are bounded, and a second factor can be asked for (SPEC 12).

A guess is counted before it is judged, so that any number of simultaneous guesses is bounded. What
is counted lies in a fixed number of slots, and says the same of names that exist and that do not.
A one-time code opens once; recovery codes are kept as digests.
"""
