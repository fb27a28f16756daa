"""The ladder: how decoders hold from repetition to repetition, session to session and person to person."""
