"""Learning from one's own answers: problems → rollouts → rewards → one small step of the policy, again and again."""
