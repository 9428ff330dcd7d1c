"""Ways to learn that several learners share: inner loops, synthetic gradients, curricula, the support/query view."""
