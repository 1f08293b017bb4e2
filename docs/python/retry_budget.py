"""retry_budget: retries may add 10 % to the load, and two at once."""


class RetryBudget:
    def __init__(self, percent, burst):
        self.percent, self.most = percent, burst * 100
        self.balance = self.most

    def deposit(self):
        self.balance = min(self.balance + self.percent, self.most)

    def withdraw(self):
        # No await in between: on one event loop nobody else can take it.
        if self.balance < 100:
            return False
        self.balance -= 100
        return True


def requests(calls, attempts, budget):
    count = 0
    for _ in range(calls):
        budget.deposit()
        count += 1
        for _ in range(attempts - 1):
            if not budget.withdraw():
                break
            count += 1
    return count


print("without a budget:", requests(100, 4, RetryBudget(300, 3)))
print("with a budget:   ", requests(100, 4, RetryBudget(10, 2)))
